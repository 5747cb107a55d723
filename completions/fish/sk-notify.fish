complete --keep-order --exclusive --command sk-notify --arguments "(SK_COMPLETE=fish sk-notify -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
