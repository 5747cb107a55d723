# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sk_replicate_global_optspecs
    string join \n h/help V/version
end

function __fish_sk_replicate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sk_replicate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sk_replicate_using_subcommand
    set -l cmd (__fish_sk_replicate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -s V -l version -d 'Print version'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "run" -d 'Serve one module: orders on the standard input, events on the standard output (started by sk-module)'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "status" -d 'Show what the replica is doing and how up to date it is'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "lineage" -d 'Show the epochs of the replica\'s history, newest first'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "salvage" -d 'List, restore and remove what was put aside before a resynchronisation replaced it'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "verify" -d 'Compare both replicas while the application writes; run it on the primary'
complete -c sk-replicate -n "__fish_sk_replicate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand run" -l spec -d 'File that says what to replicate, as JSON' -r -F
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand run" -l store-fd -d 'Number of an inherited socket to the descriptor store' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand run" -l ready-fd -d 'Number of an inherited descriptor to which a newline is written when orders are accepted' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand run" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand status" -s m -l module -d 'Name of the module' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand status" -l json -d 'Print JSON lines'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand status" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand lineage" -s m -l module -d 'Name of the module' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand lineage" -l json -d 'Print JSON lines'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand lineage" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -s m -l module -d 'Name of the module' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -f -a "list" -d 'Show what was put aside: size, and an identifier that begins with the date (UTC) of the resynchronisation'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -f -a "restore" -d 'Copy a file, or everything beneath a directory, to another place; nothing is ever written over an existing file'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -f -a "prune" -d 'Remove what old resynchronisations put aside, for good'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and not __fish_seen_subcommand_from list restore prune help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from list" -l json -d 'Print JSON lines'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from restore" -l to -d 'Directory that receives it under its last name; made when it is missing' -r -F
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from restore" -l json -d 'Print JSON lines'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from prune" -l older-than -d 'Remove what was put aside this long ago or earlier, for example 30d or 12h' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from prune" -l all -d 'Remove everything'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from prune" -l yes -d 'Really remove; without it only what would be removed is shown'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from prune" -l json -d 'Print JSON lines'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show what was put aside: size, and an identifier that begins with the date (UTC) of the resynchronisation'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from help" -f -a "restore" -d 'Copy a file, or everything beneath a directory, to another place; nothing is ever written over an existing file'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove what old resynchronisations put aside, for good'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand salvage; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand verify" -s m -l module -d 'Name of the module' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand verify" -l bandwidth -d 'Most that is read on each node, in KiB a second; 0: as fast as possible' -r
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand verify" -l json -d 'Print JSON lines: progress, difference, verified'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "run" -d 'Serve one module: orders on the standard input, events on the standard output (started by sk-module)'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "status" -d 'Show what the replica is doing and how up to date it is'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "lineage" -d 'Show the epochs of the replica\'s history, newest first'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "salvage" -d 'List, restore and remove what was put aside before a resynchronisation replaced it'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "verify" -d 'Compare both replicas while the application writes; run it on the primary'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and not __fish_seen_subcommand_from run status lineage salvage verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and __fish_seen_subcommand_from salvage" -f -a "list" -d 'Show what was put aside: size, and an identifier that begins with the date (UTC) of the resynchronisation'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and __fish_seen_subcommand_from salvage" -f -a "restore" -d 'Copy a file, or everything beneath a directory, to another place; nothing is ever written over an existing file'
complete -c sk-replicate -n "__fish_sk_replicate_using_subcommand help; and __fish_seen_subcommand_from salvage" -f -a "prune" -d 'Remove what old resynchronisations put aside, for good'
