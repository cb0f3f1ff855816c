# fish completion for coracle

complete -c coracle -f
complete -c coracle -s h -l help -d 'Print the help'
complete -c coracle -n __fish_use_subcommand -s V -l version -d 'Print the version'
complete -c coracle -n __fish_use_subcommand -a run -d 'Forward connections until stopped'
complete -c coracle -n __fish_use_subcommand -a check -d 'Check a configuration'
complete -c coracle -n __fish_use_subcommand -a list -d 'List the open connections'
complete -c coracle -n __fish_use_subcommand -a audit -d 'Compare the connections with the kernel'
complete -c coracle -n __fish_use_subcommand -a reload -d 'Reread the configuration without closing a connection'
complete -c coracle -n __fish_use_subcommand -a demo -d 'Show the proxy at work'
complete -c coracle -n __fish_use_subcommand -a version -d 'Print the version'
complete -c coracle -n __fish_use_subcommand -a help -d 'Print the help of a command'
complete -c coracle -n '__fish_seen_subcommand_from run' -s c -l config -r -F -d 'Read the configuration from this file'
complete -c coracle -n '__fish_seen_subcommand_from run' -s L -l forward -x -d 'Forward a port: [bind:]port:host:hostport'
complete -c coracle -n '__fish_seen_subcommand_from run' -l access-log -d 'Log a line for each closed connection'
complete -c coracle -n '__fish_seen_subcommand_from run' -l admin -x -a 'off 127.0.0.1:2672' -d 'Address of the admin endpoint'
complete -c coracle -n '__fish_seen_subcommand_from check' -F
complete -c coracle -n '__fish_seen_subcommand_from list' -l admin -x -a '127.0.0.1:2672 localhost:2672 unix:' -d 'Address of the admin endpoint'
complete -c coracle -n '__fish_seen_subcommand_from list' -l json -d 'Print JSON'
complete -c coracle -n '__fish_seen_subcommand_from audit' -l admin -x -a '127.0.0.1:2672 localhost:2672 unix:' -d 'Address of the admin endpoint'
complete -c coracle -n '__fish_seen_subcommand_from audit' -l json -d 'Print JSON'
complete -c coracle -n '__fish_seen_subcommand_from audit' -l watch -d 'Repeat until Ctrl-C'
complete -c coracle -n '__fish_seen_subcommand_from reload' -F
complete -c coracle -n '__fish_seen_subcommand_from reload' -l socket -r -F -d 'The control socket'
complete -c coracle -n '__fish_seen_subcommand_from reload' -l dry-run -d 'Only print what would change'
complete -c coracle -n '__fish_seen_subcommand_from demo' -l listen -x -d 'Address of the proxy'
complete -c coracle -n '__fish_seen_subcommand_from demo' -l admin -x -d 'Address of the admin endpoint'
complete -c coracle -n '__fish_seen_subcommand_from help' -a 'run check list audit reload demo version help'
