# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sk_module_global_optspecs
    string join \n h/help V/version
end

function __fish_sk_module_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sk_module_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sk_module_using_subcommand
    set -l cmd (__fish_sk_module_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sk-module -n "__fish_sk_module_needs_command" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_needs_command" -s V -l version -d 'Print version'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "run" -d 'Run the module\'s runner in the foreground (for systemd or another supervisor)'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "guard" -d 'Keep the runner alive: restart it with back-off when it dies (hosts without systemd)'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "boot" -d 'Start the runners of all applied modules, at the boot of the host'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "check" -d 'Check a userconfig.xml (and the cluster it will run in) and print every error and warning'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "config" -d 'Apply the editable configuration of a stopped module; nothing changes when it has errors'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "list" -d 'List the modules with their ids and states'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "cluster-key" -d 'Make a new cluster key (64 hexadecimal digits, mode 0600); copy it to every node'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "start" -d 'Start the module; the role follows from the data and the peer'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "prim" -d 'Start as primary; refused while the peer is primary or when this node\'s data are a mixture'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "primforce" -d 'Start as primary whatever the state of this node\'s data; the peer is then copied in full'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "second" -d 'Start as secondary; refused when the peer is not primary'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "stop" -d 'Stop the module; the peer takes over'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "forcestop" -d 'Stop without waiting for the graceful stop scripts'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "restart" -d 'Run the stop and start scripts; no failover'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "stopstart" -d 'Stop, then start again; a failover when primary'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "swap" -d 'Exchange the primary and the secondary'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "shutdown" -d 'Stop all running modules at the shutdown of the host; they stay wanted for the next boot'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "state" -d 'Print the state of a module, or of all when none is named'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "waitstate" -d 'Wait until the module is stable in a state'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "log" -d 'Print the module\'s log'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "set" -d 'Assign a resource (custom checkers)'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "get" -d 'Print a resource'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "failover" -d 'Allow or forbid automatic failover; give it on both nodes'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "plan" -d 'Print what a transition would run, without running it'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "replay" -d 'Take the decisions of a journal again and compare them with what was decided'
complete -c sk-module -n "__fish_sk_module_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-module -n "__fish_sk_module_using_subcommand run" -l ready-fd -d 'Write a newline to this descriptor once commands are answered' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand run" -l boot -d 'The host has just booted: the module starts as its attribute `boot` says'
complete -c sk-module -n "__fish_sk_module_using_subcommand run" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand guard" -l boot -d 'The host has just booted: passed to the first runner'
complete -c sk-module -n "__fish_sk_module_using_subcommand guard" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand boot" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand check" -l cluster -d 'The cluster.xml to check against; default: the one in /etc/sk, when present' -r -F
complete -c sk-module -n "__fish_sk_module_using_subcommand check" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand config" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand config" -l id -d 'Number of the module, the same on all nodes; ports derive from it. Default: the one applied before, else 1' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand config" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand list" -l json -d 'JSON lines'
complete -c sk-module -n "__fish_sk_module_using_subcommand list" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand cluster-key" -l output -d 'Where to write it; default: /etc/sk/cluster.key. An existing file is never replaced' -r -F
complete -c sk-module -n "__fish_sk_module_using_subcommand cluster-key" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand start" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand start" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand start" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand prim" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand prim" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand prim" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand primforce" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand primforce" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand primforce" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand second" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand second" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand second" -l fullsync -d 'Compare and copy everything'
complete -c sk-module -n "__fish_sk_module_using_subcommand second" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand stop" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand stop" -s i -l identity -d 'Automatic origin: who asks. Counts for maxloop; without it the command is the administrator\'s and resets the counter' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand stop" -l wait -d 'Wait for STOP'
complete -c sk-module -n "__fish_sk_module_using_subcommand stop" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand forcestop" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand forcestop" -l wait -d 'Wait for STOP'
complete -c sk-module -n "__fish_sk_module_using_subcommand forcestop" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand restart" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand restart" -s i -l identity -d 'Automatic origin: who asks. Counts for maxloop; without it the command is the administrator\'s and resets the counter' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand restart" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand restart" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand stopstart" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand stopstart" -s i -l identity -d 'Automatic origin: who asks. Counts for maxloop; without it the command is the administrator\'s and resets the counter' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand stopstart" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand stopstart" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand swap" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand swap" -s i -l identity -d 'Automatic origin: who asks. Counts for maxloop; without it the command is the administrator\'s and resets the counter' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand swap" -l wait -d 'Wait for a stable state'
complete -c sk-module -n "__fish_sk_module_using_subcommand swap" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand shutdown" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -s v -l verbose -d 'All resources, one a line'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -s q -l quiet -d 'Exit with the state\'s code (SafeKit\'s `-lq`)'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -s l -d 'Accepted for the form `-lq`'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -l watch -d 'Print a line at each change, until interrupted'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -l json -d 'JSON'
complete -c sk-module -n "__fish_sk_module_using_subcommand state" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand waitstate" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand waitstate" -l timeout -d 'Give up after this time (exit code 4)' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand waitstate" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand log" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand log" -s s -l lines -d 'Number of lines' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand log" -s A -l all -d 'Verbose: also the levels I, W and D'
complete -c sk-module -n "__fish_sk_module_using_subcommand log" -s f -l follow -d 'Go on with new lines until interrupted'
complete -c sk-module -n "__fish_sk_module_using_subcommand log" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand set" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand set" -s r -l resource -d 'class.id' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand set" -s v -l value -d 'up, down or another value' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand set" -s i -l identity -d 'Automatic origin: who asks. Counts for maxloop; without it the command is the administrator\'s and resets the counter' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand set" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand get" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand get" -s r -l resource -d 'class.id' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand get" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand failover" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand failover" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand plan" -s m -l module -d 'Name of the module; default: the environment variable SAFEMODULE' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand plan" -l action -d 'start, stop, stopstart, stopwait, restart or swap' -r
complete -c sk-module -n "__fish_sk_module_using_subcommand plan" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand replay" -s q -l quiet -d 'Only the verdict'
complete -c sk-module -n "__fish_sk_module_using_subcommand replay" -s h -l help -d 'Print help'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "run" -d 'Run the module\'s runner in the foreground (for systemd or another supervisor)'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "guard" -d 'Keep the runner alive: restart it with back-off when it dies (hosts without systemd)'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "boot" -d 'Start the runners of all applied modules, at the boot of the host'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "check" -d 'Check a userconfig.xml (and the cluster it will run in) and print every error and warning'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "config" -d 'Apply the editable configuration of a stopped module; nothing changes when it has errors'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "list" -d 'List the modules with their ids and states'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "cluster-key" -d 'Make a new cluster key (64 hexadecimal digits, mode 0600); copy it to every node'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "start" -d 'Start the module; the role follows from the data and the peer'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "prim" -d 'Start as primary; refused while the peer is primary or when this node\'s data are a mixture'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "primforce" -d 'Start as primary whatever the state of this node\'s data; the peer is then copied in full'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "second" -d 'Start as secondary; refused when the peer is not primary'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "stop" -d 'Stop the module; the peer takes over'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "forcestop" -d 'Stop without waiting for the graceful stop scripts'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "restart" -d 'Run the stop and start scripts; no failover'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "stopstart" -d 'Stop, then start again; a failover when primary'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "swap" -d 'Exchange the primary and the secondary'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "shutdown" -d 'Stop all running modules at the shutdown of the host; they stay wanted for the next boot'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "state" -d 'Print the state of a module, or of all when none is named'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "waitstate" -d 'Wait until the module is stable in a state'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "log" -d 'Print the module\'s log'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "set" -d 'Assign a resource (custom checkers)'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "get" -d 'Print a resource'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "failover" -d 'Allow or forbid automatic failover; give it on both nodes'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "plan" -d 'Print what a transition would run, without running it'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "replay" -d 'Take the decisions of a journal again and compare them with what was decided'
complete -c sk-module -n "__fish_sk_module_using_subcommand help; and not __fish_seen_subcommand_from run guard boot check config list cluster-key start prim primforce second stop forcestop restart stopstart swap shutdown state waitstate log set get failover plan replay help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
