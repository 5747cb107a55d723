complete --keep-order --exclusive --command sk-top --arguments "(SK_COMPLETE=fish sk-top -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
