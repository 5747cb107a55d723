complete --keep-order --exclusive --command sk-farmfilter --arguments "(SK_COMPLETE=fish sk-farmfilter -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
