complete -c sk-top -l once -d 'Print one frame as plain text and end'
complete -c sk-top -l json -d 'Print the states as JSON lines and end'
complete -c sk-top -s h -l help -d 'Print help'
complete -c sk-top -s V -l version -d 'Print version'
