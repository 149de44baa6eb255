#!/bin/sh
# Which handlers a running Asterisk has missed: one line each. Files are compared with its start and its last reload, in s.
set -eu
now=$(date +%s)
uptime=$(asterisk -rx 'core show uptime seconds')
started=$(echo "$uptime" | awk -v now="$now" '/^System uptime/ { print now - $3 }')
reloaded=$(echo "$uptime" | awk -v now="$now" '/^Last reload/ { print now - $3 }')
: "${started:=$now}" "${reloaded:=$started}"

newer() { # SECONDS FILE…
    than=$(($1 + 2))
    shift
    for file in "$@"; do
        [ -e "/etc/asterisk/$file" ] || continue
        [ "$(stat -c %Y "/etc/asterisk/$file")" -lt "$than" ] || return 0
    done
    return 1
}

if newer "$started" asterisk.conf modules.conf; then
    echo 'Restart Asterisk'
elif newer "$reloaded" extensions_ringward.conf amd.conf; then
    echo 'Read the dialplan anew'
elif newer "$reloaded" extensions.conf manager.conf manager_ringward.conf pjsip.conf pjsip_ringward.conf rtp.conf logger.conf; then
    echo 'Reload Asterisk'
fi
