complete --keep-order --exclusive --command sk-check --arguments "(SK_COMPLETE=fish sk-check -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
