# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sk_errd_global_optspecs
    string join \n h/help V/version
end

function __fish_sk_errd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sk_errd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sk_errd_using_subcommand
    set -l cmd (__fish_sk_errd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sk-errd -n "__fish_sk_errd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sk-errd -n "__fish_sk_errd_needs_command" -s V -l version -d 'Print version'
complete -c sk-errd -n "__fish_sk_errd_needs_command" -f -a "run" -d 'Watch until stdin ends: orders as JSON lines on stdin, events as JSON lines on stdout'
complete -c sk-errd -n "__fish_sk_errd_needs_command" -f -a "list" -d 'Show the running processes that a configuration would match'
complete -c sk-errd -n "__fish_sk_errd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand run" -l spec -d 'File that holds polling period, classes and processes as one JSON object' -r -F
complete -c sk-errd -n "__fish_sk_errd_using_subcommand run" -s h -l help -d 'Print help'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand list" -l name -d 'Name of the process as the kernel keeps it; longer names are compared by their first 15 bytes' -r
complete -c sk-errd -n "__fish_sk_errd_using_subcommand list" -l name-regex -d 'Regular expression that the kernel\'s name of the process must match' -r
complete -c sk-errd -n "__fish_sk_errd_using_subcommand list" -l arg-regex -d 'Regular expression that the full command line must match' -r
complete -c sk-errd -n "__fish_sk_errd_using_subcommand list" -l json -d 'Print one JSON object a line'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand help; and not __fish_seen_subcommand_from run list help" -f -a "run" -d 'Watch until stdin ends: orders as JSON lines on stdin, events as JSON lines on stdout'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand help; and not __fish_seen_subcommand_from run list help" -f -a "list" -d 'Show the running processes that a configuration would match'
complete -c sk-errd -n "__fish_sk_errd_using_subcommand help; and not __fish_seen_subcommand_from run list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
