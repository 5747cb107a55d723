# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_safekit_global_optspecs
    string join \n m/module= h/help V/version
end

function __fish_safekit_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_safekit_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_safekit_using_subcommand
    set -l cmd (__fish_safekit_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c safekit -n "__fish_safekit_needs_command" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_needs_command" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_needs_command" -s V -l version -d 'Print version'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "print" -d 'Print the variables NAME="value" (also: safekit -p)'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "run" -d 'Run a special command with these variables (also: safekit -r)'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "printi" -d 'Write a message of level I (verbose) to the module\'s log'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "printe" -d 'Write a message of level E to the module\'s log'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "printw" -d 'Write a message of level W (verbose) to the module\'s log'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "start" -d 'Start the module; its role follows from the data and the peer'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "prim" -d 'Start as primary; refused while the peer is primary'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "primforce" -d 'Start as primary whatever the data are; the peer is copied in full'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "second" -d 'Start as secondary; refused when the peer is not primary'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "stop" -d 'Stop the module; the peer takes over'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "forcestop" -d 'Stop without waiting for the graceful stop scripts'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "restart" -d 'Run the stop and start scripts; no failover'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "stopstart" -d 'Stop, then start again; a failover when primary'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "swap" -d 'Exchange the primary and the secondary'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "shutdown" -d 'Stop all running modules, at the shutdown of the host'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "config" -d 'Apply the editable configuration of a stopped module'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "waitstart" -d 'Wait for the end of a start'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "waitstop" -d 'Wait for the end of a stop'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "waitstate" -d 'Wait for a stable state'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "state" -d 'Print the state of the module, or of all'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "log" -d 'Print the module\'s log'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "logview" -d 'Print the module\'s log and follow it'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "set" -d 'Assign a resource'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "get" -d 'Print a resource'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "errd" -d 'Process supervision: enable or disable a class, switch all on or off, list'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "failover" -d 'Allow or forbid automatic failover; give it on both nodes'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "resetloop" -d 'Set the counter of automatic actions to zero'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "incloop" -d 'Count one more automatic action; exit code 1 when the limit is reached'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "checkloop" -d 'Exit code 1 when the limit of automatic actions is reached, else 0'
complete -c safekit -n "__fish_safekit_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c safekit -n "__fish_safekit_using_subcommand print" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand print" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand run" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand run" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand printi" -s i -d 'Origin shown in the log' -r
complete -c safekit -n "__fish_safekit_using_subcommand printi" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand printi" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand printe" -s i -d 'Origin shown in the log' -r
complete -c safekit -n "__fish_safekit_using_subcommand printe" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand printe" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand printw" -s i -d 'Origin shown in the log' -r
complete -c safekit -n "__fish_safekit_using_subcommand printw" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand printw" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand start" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand start" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand prim" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand prim" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand primforce" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand primforce" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand second" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand second" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand stop" -s i -d 'Automatic origin: who asks. Counts for maxloop' -r
complete -c safekit -n "__fish_safekit_using_subcommand stop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand stop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand forcestop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand forcestop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand restart" -s i -d 'Automatic origin: who asks. Counts for maxloop' -r
complete -c safekit -n "__fish_safekit_using_subcommand restart" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand restart" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand stopstart" -s i -d 'Automatic origin: who asks. Counts for maxloop' -r
complete -c safekit -n "__fish_safekit_using_subcommand stopstart" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand stopstart" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand swap" -s i -d 'Automatic origin: who asks. Counts for maxloop' -r
complete -c safekit -n "__fish_safekit_using_subcommand swap" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand swap" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand shutdown" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand shutdown" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand config" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand config" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand waitstart" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand waitstart" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand waitstop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand waitstop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand waitstate" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand waitstate" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand state" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand state" -s v -d 'All resources, one a line: class.id, value, date'
complete -c safekit -n "__fish_safekit_using_subcommand state" -s l -d 'Only the state'
complete -c safekit -n "__fish_safekit_using_subcommand state" -s q -d 'Exit with the code of the state'
complete -c safekit -n "__fish_safekit_using_subcommand state" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand log" -s s -d 'Number of messages' -r
complete -c safekit -n "__fish_safekit_using_subcommand log" -s l -d 'Language: messages are in English only' -r -f -a "en\t''"
complete -c safekit -n "__fish_safekit_using_subcommand log" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand log" -s A -d 'Verbose: also the levels I, W and D'
complete -c safekit -n "__fish_safekit_using_subcommand log" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand logview" -s s -d 'Number of messages' -r
complete -c safekit -n "__fish_safekit_using_subcommand logview" -s l -d 'Language: messages are in English only' -r -f -a "en\t''"
complete -c safekit -n "__fish_safekit_using_subcommand logview" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand logview" -s A -d 'Verbose: also the levels I, W and D'
complete -c safekit -n "__fish_safekit_using_subcommand logview" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand set" -s r -d 'class.id' -r
complete -c safekit -n "__fish_safekit_using_subcommand set" -s v -d 'Value: up, down or another' -r
complete -c safekit -n "__fish_safekit_using_subcommand set" -s i -d 'Automatic origin: who asks. Counts for maxloop' -r
complete -c safekit -n "__fish_safekit_using_subcommand set" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand set" -s n -d 'Keep no history: this version keeps none'
complete -c safekit -n "__fish_safekit_using_subcommand set" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand get" -s r -d 'class.id' -r
complete -c safekit -n "__fish_safekit_using_subcommand get" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand get" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand errd" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand errd" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand failover" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand failover" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand resetloop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand resetloop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand incloop" -s i -d 'Who asks' -r
complete -c safekit -n "__fish_safekit_using_subcommand incloop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand incloop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand checkloop" -s m -l module -d 'Name of the module' -r
complete -c safekit -n "__fish_safekit_using_subcommand checkloop" -s h -l help -d 'Print help'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "print" -d 'Print the variables NAME="value" (also: safekit -p)'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "run" -d 'Run a special command with these variables (also: safekit -r)'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "printi" -d 'Write a message of level I (verbose) to the module\'s log'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "printe" -d 'Write a message of level E to the module\'s log'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "printw" -d 'Write a message of level W (verbose) to the module\'s log'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "start" -d 'Start the module; its role follows from the data and the peer'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "prim" -d 'Start as primary; refused while the peer is primary'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "primforce" -d 'Start as primary whatever the data are; the peer is copied in full'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "second" -d 'Start as secondary; refused when the peer is not primary'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "stop" -d 'Stop the module; the peer takes over'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "forcestop" -d 'Stop without waiting for the graceful stop scripts'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "restart" -d 'Run the stop and start scripts; no failover'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "stopstart" -d 'Stop, then start again; a failover when primary'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "swap" -d 'Exchange the primary and the secondary'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "shutdown" -d 'Stop all running modules, at the shutdown of the host'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "config" -d 'Apply the editable configuration of a stopped module'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "waitstart" -d 'Wait for the end of a start'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "waitstop" -d 'Wait for the end of a stop'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "waitstate" -d 'Wait for a stable state'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "state" -d 'Print the state of the module, or of all'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "log" -d 'Print the module\'s log'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "logview" -d 'Print the module\'s log and follow it'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "set" -d 'Assign a resource'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "get" -d 'Print a resource'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "errd" -d 'Process supervision: enable or disable a class, switch all on or off, list'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "failover" -d 'Allow or forbid automatic failover; give it on both nodes'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "resetloop" -d 'Set the counter of automatic actions to zero'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "incloop" -d 'Count one more automatic action; exit code 1 when the limit is reached'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "checkloop" -d 'Exit code 1 when the limit of automatic actions is reached, else 0'
complete -c safekit -n "__fish_safekit_using_subcommand help; and not __fish_seen_subcommand_from print run printi printe printw start prim primforce second stop forcestop restart stopstart swap shutdown config waitstart waitstop waitstate state log logview set get errd failover resetloop incloop checkloop help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
