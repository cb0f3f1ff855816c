# bash completion for coracle

_coracle() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} options files=
    local commands='run check status top list clients audit reload server kill logs log-level demo version help'
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands -V --version -h --help" -- "$cur")
        return
    fi
    case $prev in
        -c | --config | --socket | --token-file)
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        -L | --forward | --listen | --peer | --entrypoint | --service | --server | --min-age | --limit | --interval) return ;;
        --level)
            mapfile -t COMPREPLY < <(compgen -W 'error warn info debug' -- "$cur")
            return
            ;;
        --state)
            mapfile -t COMPREPLY < <(compgen -W 'dialling queued relaying limited half-closed' -- "$cur")
            return
            ;;
        --sort)
            mapfile -t COMPREPLY < <(compgen -W 'age bytes' -- "$cur")
            return
            ;;
        --admin)
            case ${COMP_WORDS[1]} in
                run) options='off 127.0.0.1:2672' ;;
                status | top | list | clients | audit | reload | server | kill | logs | log-level) options='127.0.0.1:2672 localhost:2672 unix:' ;;
                *) options='127.0.0.1:2672' ;;
            esac
            mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
            return
            ;;
        :)
            # The shell splits unix:/path into three words.
            [ "${COMP_WORDS[COMP_CWORD - 2]}" != unix ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
    esac
    # The options of each command.
    case ${COMP_WORDS[1]} in
        run) options='-c --config -L --forward --admin --access-log -h --help' ;;
        check) options='-h --help' files=yes ;;
        status) options='--admin --token-file --json -h --help' ;;
        list) options='--admin --token-file --peer --entrypoint --service --server --state --min-age --sort --limit --json -h --help' ;;
        top) options='--admin --token-file --interval -h --help' ;;
        clients) options='--admin --token-file --json -h --help' ;;
        audit) options='--admin --token-file --json --watch -h --help' ;;
        reload) options='--socket --admin --token-file --dry-run -h --help' files=yes ;;
        server) options='--socket --admin --token-file -h --help' ;;
        kill) options='--socket --admin --token-file --peer --entrypoint --service --server --dry-run -h --help' ;;
        logs) options='--admin --token-file --level --follow --json -h --help' ;;
        log-level) options='--socket --admin --token-file -h --help' ;;
        demo) options='--listen --admin -h --help' ;;
        version) options='-h --help' ;;
        help) options=$commands ;;
        *) return ;;
    esac
    if [[ ${COMP_WORDS[1]} = server && $cur != -* ]]; then
        options='drain down ready'
    fi
    if [[ ${COMP_WORDS[1]} = log-level && $cur != -* ]]; then
        options='error warn info debug'
    fi
    if [[ $files && $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    fi
}

complete -o filenames -F _coracle coracle
