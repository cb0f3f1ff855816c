# shellcheck shell=dash disable=SC2034,SC3043
# As much of OpenWrt's functions.sh and procd.sh as the init script uses, on files instead of a router: UCI's text form is sourced,
# and what is asked of procd is written to $PROCD.

config() {
    anonymous=$((anonymous + 1))
    section=${2:-cfg$anonymous}
    sections="$sections $section"
    eval "uci_${section}_TYPE=\$1"
    config_cb "$1" "$section"
}
option() {
    eval "uci_${section}_$1=\$2"
    option_cb "$1" "$2"
}
list() {
    local length
    eval "length=\${uci_${section}_$1_length:-0}"
    length=$((length + 1))
    eval "uci_${section}_$1_item$length=\$2 uci_${section}_$1_length=\$length uci_${section}_$1=\"\${uci_${section}_$1:+\$uci_${section}_$1 }\$2\""
    list_cb "$1" "$2"
}

reset_cb() {
    config_cb() { return 0; }
    option_cb() { return 0; }
    list_cb() { return 0; }
}
reset_cb

config_load() {
    local each
    # A router forgets lists before it loads again.
    for each in $(set | sed -n 's/^\(uci_[A-Za-z0-9_]*_length\)=.*/\1/p'); do
        eval "$each=0 ${each%_length}="
    done
    sections='' anonymous=0
    # shellcheck source=/dev/null
    . "$UCI/$1"
    config_cb
}
config_get() { eval "$1=\${uci_$2_$3:-\${4:-}}"; }
config_get_bool() {
    local _value
    config_get _value "$2" "$3" "$4"
    case $_value in
        1 | on | true | yes | enabled) _value=1 ;;
        0 | off | false | no | disabled) _value=0 ;;
        *) _value=$4 ;;
    esac
    eval "$1=\$_value"
}
config_foreach() {
    local each kind function=$1 type=$2
    shift 2
    for each in $sections; do
        eval "kind=\$uci_${each}_TYPE"
        [ "$kind" != "$type" ] || "$function" "$each" "$@"
    done
}
config_list_foreach() {
    local length number=1 value
    eval "length=\${uci_$1_$2_length:-0}"
    while [ "$number" -le "$length" ]; do
        eval "value=\$uci_$1_$2_item$number"
        "$3" "$value"
        number=$((number + 1))
    done
}

procd_open_instance() { echo "open" >>"$PROCD"; }
procd_set_param() { echo "$*" >>"$PROCD"; }
procd_close_instance() { echo "close" >>"$PROCD"; }
procd_add_reload_trigger() { echo "reload on $*" >>"$PROCD"; }
procd_add_reload_interface_trigger() { echo "reload on interface $*" >>"$PROCD"; }
start() { start_service; }
logger() { cat >&2; }
