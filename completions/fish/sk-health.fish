complete --keep-order --exclusive --command sk-health --arguments "(SK_COMPLETE=fish sk-health -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
