# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sk_vip_global_optspecs
    string join \n h/help V/version
end

function __fish_sk_vip_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sk_vip_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sk_vip_using_subcommand
    set -l cmd (__fish_sk_vip_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sk-vip -n "__fish_sk_vip_needs_command" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -s V -l version -d 'Print version'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "add" -d 'Add an address: probe for conflicts, set it, announce it to the neighbours once'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "remove" -d 'Remove an address, resetting its TCP connections first'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "show" -d 'List the addresses of this host, or tell about one'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "probe" -d 'Ask the network whether another host uses an address'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "hold" -d 'Add the addresses of a specification and keep them until the standard input ends (used by sk-module)'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "watch" -d 'Report carrier changes of the interfaces of a specification until the standard input ends (used by sk-module)'
complete -c sk-vip -n "__fish_sk_vip_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -s i -l interface -d 'Interface; by default the one whose network contains the address' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -s l -l lifetime -d 'Time after which the kernel removes the address by itself, e.g. 30s; without it the address stays' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -l one-side -d 'Make it the source address of outgoing connections'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -l no-probe -d 'Do not ask whether another host uses it'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -l json -d 'Print JSON lines'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand add" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand remove" -s i -l interface -d 'Only on this interface' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand remove" -l keep-connections -d 'Do not reset its TCP connections'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand remove" -l json -d 'Print JSON lines'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand remove" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand show" -l json -d 'Print JSON lines'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand show" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand probe" -s i -l interface -d 'Interface; by default the one whose network contains the address' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand probe" -s c -l count -d 'Number of questions' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand probe" -s w -l wait -d 'Time to wait for an answer to each, e.g. 40ms' -r
complete -c sk-vip -n "__fish_sk_vip_using_subcommand probe" -l json -d 'Print JSON lines'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand probe" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand hold" -l spec -d 'File with the specification (JSON, see sk-vip in the architecture)' -r -F
complete -c sk-vip -n "__fish_sk_vip_using_subcommand hold" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand watch" -l spec -d 'File with the specification (JSON)' -r -F
complete -c sk-vip -n "__fish_sk_vip_using_subcommand watch" -l once -d 'Report the present values and end'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand watch" -s h -l help -d 'Print help'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "add" -d 'Add an address: probe for conflicts, set it, announce it to the neighbours once'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "remove" -d 'Remove an address, resetting its TCP connections first'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "show" -d 'List the addresses of this host, or tell about one'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "probe" -d 'Ask the network whether another host uses an address'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "hold" -d 'Add the addresses of a specification and keep them until the standard input ends (used by sk-module)'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "watch" -d 'Report carrier changes of the interfaces of a specification until the standard input ends (used by sk-module)'
complete -c sk-vip -n "__fish_sk_vip_using_subcommand help; and not __fish_seen_subcommand_from add remove show probe hold watch help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
