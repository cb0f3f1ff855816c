# bash completion for coracle

_coracle() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} options files=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'run check audit reload demo --version --help' -- "$cur")
        return
    fi
    case $prev in
        -c | --config | --socket)
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        -L | --forward | --listen) return ;;
        --admin)
            case ${COMP_WORDS[1]} in
                run) options='off 127.0.0.1:2672' ;;
                audit) options='127.0.0.1:2672 localhost:2672 unix:' ;;
                *) options='127.0.0.1:2672' ;;
            esac
            mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
            return
            ;;
        :)
            # The shell takes unix:/path for three words.
            [ "${COMP_WORDS[COMP_CWORD - 2]}" != unix ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
    esac
    case ${COMP_WORDS[1]} in
        run) options='-c --config -L --forward --admin --access-log --help' ;;
        audit) options='--admin --json --watch --help' ;;
        demo) options='--listen --admin --help' ;;
        check) options='--help' files=yes ;;
        reload) options='--socket --dry-run --help' files=yes ;;
        *) return ;;
    esac
    if [[ $files && $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    fi
}

complete -o filenames -F _coracle coracle
