complete --keep-order --exclusive --command sk-vip --arguments "(SK_COMPLETE=fish sk-vip -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
