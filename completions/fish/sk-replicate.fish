complete --keep-order --exclusive --command sk-replicate --arguments "(SK_COMPLETE=fish sk-replicate -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
