#!/bin/sh
# wait-for-drain.sh APP/RELEASE FILE TOKEN_FILE: makes FILE once nobody is on the release any more. The preStop hook of a release's pod.
#
# A pod that is deleted while people are on it goes on serving them until its grace period ends (terminationGracePeriodSeconds). A
# release that is current has no end to wait for: promote another one meanwhile, and the pod leaves when that drain is over.
set -u
release=$1 token_file=$3

# The file is read at each question: a token that was changed meanwhile is the one that counts.
ask() { tidegate "$@" --token-file "$token_file"; }

# A release that was removed has nobody, and tidegate says so in these words. Whoever says less, because the proxy cannot be reached or
# refuses the token, has not said that nobody is there.
is_unknown() {
    said=$(ask sessions "$release" 2>&1 >/dev/null) && return 1
    case $said in *"release '$release' does not exist"*) return 0 ;; *) return 1 ;; esac
}

# Waits for the drain, then closes the release: its pod is going, so nothing may come back to it.
while :; do
    ask stop "$release" --wait
    case $? in
        0) break ;;
        # Its process died, and whoever was there with it: nothing is left to wait for.
        3) if ask stop "$release"; then break; fi ;;
        *) if is_unknown; then break; fi ;;
    esac
    sleep 5
done
touch "$2"
