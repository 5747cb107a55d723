complete --keep-order --exclusive --command sk-cluster --arguments "(SK_COMPLETE=fish sk-cluster -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
