# shellcheck shell=dash disable=SC2034,SC3043
# As much of OpenWrt's functions.sh and procd.sh as the init script uses, on files instead of a router: UCI's text form is sourced,
# and what is asked of procd is written to $PROCD.

config() {
    section=${2:-anonymous$sections}
    sections="$sections $section"
    eval "uci_${section}_type=\$1"
}
option() { eval "uci_${section}_$1=\$2"; }
list() {
    local length
    eval "length=\${uci_${section}_$1_length:-0}"
    length=$((length + 1))
    eval "uci_${section}_$1_item$length=\$2 uci_${section}_$1_length=\$length uci_${section}_$1=\"\${uci_${section}_$1:+\$uci_${section}_$1 }\$2\""
}

config_load() {
    sections=
    # shellcheck source=/dev/null
    . "$UCI/$1"
}
config_get() { eval "$1=\${uci_$2_$3:-\${4:-}}"; }
config_get_bool() {
    local value
    config_get value "$2" "$3" "$4"
    case $value in
        1 | on | true | yes | enabled) eval "$1=1" ;;
        *) eval "$1=0" ;;
    esac
}
config_foreach() {
    local each kind
    for each in $sections; do
        eval "kind=\$uci_${each}_type"
        [ "$kind" != "$2" ] || "$1" "$each"
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
