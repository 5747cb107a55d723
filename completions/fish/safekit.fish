complete --keep-order --exclusive --command safekit --arguments "(SK_COMPLETE=fish safekit -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
