complete --keep-order --exclusive --command sk-errd --arguments "(SK_COMPLETE=fish sk-errd -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
