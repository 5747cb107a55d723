complete --keep-order --exclusive --command sk-arbiter --arguments "(SK_COMPLETE=fish sk-arbiter -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
