complete --keep-order --exclusive --command sk-module --arguments "(SK_COMPLETE=fish sk-module -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
