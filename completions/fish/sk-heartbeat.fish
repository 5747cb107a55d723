complete --keep-order --exclusive --command sk-heartbeat --arguments "(SK_COMPLETE=fish sk-heartbeat -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
