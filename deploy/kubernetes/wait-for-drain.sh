#!/bin/sh
# wait-for-drain.sh APP/RELEASE FILE: makes FILE once nobody is on the release any more. The preStop hook of a release's pod.
#
# A pod that is deleted while people are on it goes on serving them until its grace period ends (terminationGracePeriodSeconds). A
# release that is current has no end to wait for: promote another one meanwhile, and the pod leaves when that drain is over.
set -u
release=$1

# A release that was removed has nobody. One that cannot be asked about is not taken for empty.
is_unknown() { tidegate status "${release%%/*}" >/dev/null && ! tidegate sessions "$release" >/dev/null; }

# Waits for the drain, then closes the release: its pod is going, so nothing may come back to it.
while :; do
    tidegate stop "$release" --wait
    case $? in
        0) break ;;
        # Its process died, and whoever was there with it: nothing is left to wait for.
        3) if tidegate stop "$release"; then break; fi ;;
        *) if is_unknown; then break; fi ;;
    esac
    sleep 5
done
touch "$2"
