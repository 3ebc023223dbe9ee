#!/bin/sh
# Deploys a release behind tidegate and tells by its exit code what became of it: stage, smoke test, promote, wait, stop the old one.
# Whoever calls it has started the new processes before, and may switch the old ones off after exit code 0, and not after any other.
# shellcheck disable=SC2016  # what begins with $ in single quotes is jq's
set -u

usage() {
    cat <<'END'
deploy.sh APP RELEASE --backend NAME=HOST:PORT... [OPTIONS]

  --backend NAME=HOST:PORT  a process of the new release; repeat for more
  --path PREFIX             its own path prefix when that differs from the public one
  --smoke-path PATH         page, below that prefix, which must answer 2xx on each new process [/]
  --smoke COMMAND           shell command to run for each new process instead; BACKEND and ADDRESS tell it which
  --smoke-timeout SECONDS   how long each process may take until it passes [60]
  --timeout TIME            how long users of the old release may take: 30m, 4h [2h]
  --then ACTION             what then becomes of those who are left: keep | move_idle | evict [keep]
  --retire COMMAND          shell command that switches the old processes off; OLD tells it which release

Needs tidegate, curl and jq. Where tidegate is and its token: TIDEGATE_ADMIN and TIDEGATE_TOKEN, as for every tidegate command.
The same call again goes on where the one before ended.

  0  done: everybody is on RELEASE; the old one was proven empty and stopped
  1  nothing was promoted: tidegate does not answer or refuses, the smoke test failed, or this was interrupted (HUP, INT, TERM); what
     this call staged is removed again. Or a step after the promotion failed: the message says so
  2  RELEASE is current, but people are still on the old one after --timeout; it goes on draining. The same call again waits on
  3  RELEASE is current; processes of the old one died before they were empty, and sessions were lost
  4  somebody else decided otherwise, such as a rollback: nothing more is done
 64  wrong usage
END
}

say() { printf 'deploy.sh: %s\n' "$*" >&2; }
misused() { say "$1; see deploy.sh --help"; exit 64; }

app='' release='' backends='' prefix='' smoke='' smoke_path=/ smoke_timeout=60 timeout=2h then=keep retire=''
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage; exit 0 ;;
        --*) [ $# -ge 2 ] || misused "$1 needs a value" ;;
    esac
    case $1 in
        --backend)
            case $2 in *[[:space:]]*) misused "--backend $2 has a space" ;; ?*=?*:?*) backends="$backends $2" ;; *) misused "--backend $2 is not NAME=HOST:PORT" ;; esac ;;
        --path) prefix=$2 ;;
        --smoke-path) smoke_path=$2 ;;
        --smoke) smoke=$2 ;;
        --smoke-timeout)
            case $2 in *[!0-9]* | '') misused "--smoke-timeout wants seconds" ;; esac
            smoke_timeout=$2 ;;
        --timeout) timeout=$2 ;;
        --then) then=$2 ;;
        --retire) retire=$2 ;;
        --*) misused "$1 is no option" ;;
        *)
            if [ -z "$app" ]; then app=$1; elif [ -z "$release" ]; then release=$1; else misused "$1 is one word too many"; fi
            shift
            continue ;;
    esac
    shift 2
done
[ -n "$release" ] || misused "an app and a release are needed"
for tool in tidegate curl jq; do
    command -v $tool >/dev/null || { say "$tool is missing"; exit 1; }
done

# What tidegate knows, by a jq filter with $app and $release at hand. Fails where it does not answer, or the answer has no such thing:
# jq alone takes an empty document for success, and silence must never pass for "nothing is there".
ask() {
    document=$(tidegate status "$app" --json) || return 1
    printf '%s' "$document" | jq -er --arg app "$app" --arg release "$release" ".apps[\$app] as \$it | $1"
}

staged_here='' child=''
give_up() {
    trap '' HUP INT TERM
    say "$1"
    if [ -n "$staged_here" ]; then tidegate remove "$app/$release" >&2 || say "$app/$release stays staged: nobody is sent there"; fi
    exit 1
}

# Whoever cancels a pipeline leaves nothing behind either.
interrupted() {
    if [ -n "$child" ]; then kill "$child" 2>/dev/null; fi
    give_up "interrupted; nothing was promoted"
}
trap interrupted HUP INT TERM

no_answer="tidegate has no answer about $app" # it has said why
current=$(ask '$it.current') || give_up "$no_answer"
state=$(ask '$it.releases[$release].state // "unknown"') || give_up "$no_answer"

# Ends its shell: to be called in one of its own, beside this one, which can hear a signal meanwhile.
passes() {
    if [ -n "$smoke" ]; then
        BACKEND=$1 ADDRESS=$2 exec sh -c "$smoke" >&2
    fi
    # Not --fail, which lets a redirection pass: that of a page that is not there, say, to one that explains it.
    code=$(curl -sS -o /dev/null -w '%{http_code}' --max-time 10 "http://$2$prefix$smoke_path") || exit 1
    case $code in
        2??) exit 0 ;;
        *) say "$2$prefix$smoke_path answers $code"; exit 1 ;;
    esac
}

# Straight to each process: a staged release is hidden from clients, and each process is to be tried, not whichever a balancer picks.
smoke_test() {
    until=$(($(date +%s) + smoke_timeout))
    while :; do
        passes "$1" "$2" &
        child=$!
        if wait $child; then child=''; return 0; fi
        child=''
        [ "$(date +%s)" -lt $until ] || return 1
        sleep 1
    done
}

if [ "$current" = by_health ]; then give_up "$app has 'current: by_health': its health endpoints deploy, not this script"; fi
if [ "$current" = "$release" ]; then
    # A call before this one promoted it. Whose drain began last is what that deploy left behind.
    old=$(ask '[.drains[].target | split("/") | select(.[0] == $app and length == 2) | .[1]] | map(select(. != $release)) | last // ""') || give_up "$no_answer"
    say "$app/$release is current already"
else
    old=$current
    if [ "$state" = unknown ]; then
        [ -n "$backends" ] || misused "$app/$release is not known, and no --backend says where it is"
        set -- "$app" "$release"
        for backend in $backends; do set -- "$@" --backend "$backend"; done
        if [ -n "$prefix" ]; then set -- "$@" --path "$prefix"; fi
        # Before it is so: a signal may come while it becomes so.
        staged_here=yes
        if ! tidegate stage "$@" >&2; then
            staged_here=''
            give_up "$app/$release was not staged"
        fi
    fi
    addresses=$(ask '$it.releases[$release].backends | to_entries[] | "\(.key)=\(.value.address)"') || give_up "$no_answer"
    # One that was staged before: by a call like this one, or by somebody with something else in mind.
    for backend in $backends; do
        case " $(echo "$addresses" | tr '\n' ' ')" in
            *" $backend "*) ;;
            *) give_up "$app/$release is known already, and not with $backend" ;;
        esac
    done
    for backend in $addresses; do
        smoke_test "${backend%%=*}" "${backend#*=}" || give_up "smoke test failed: $app/$release/${backend%%=*} at ${backend#*=}"
    done
fi

# From here on the drain is tidegate's, and goes on whatever becomes of this script.
trap - HUP INT TERM
# --from: if somebody else promoted meanwhile, this is not the deploy that they, or we, had in mind.
set -- "$app" "$release" --wait --timeout "$timeout" --then "$then"
if [ "$current" != "$release" ]; then set -- "$@" --from "$old"; fi
tidegate promote "$@"
code=$?
case $code in
    0) ;;
    2) say "people are still on $app/$old; it goes on draining, leave its processes alone"; exit 2 ;;
    3) say "$app/$release is current; processes of $app/$old died with sessions on them"; exit 3 ;;
    4) say "somebody else decided otherwise; tidegate status $app says what"; exit 4 ;;
    *)
        now=$(ask '$it.current') || now=''
        if [ "$now" = "$current" ]; then give_up "$app/$release was not promoted"; fi
        if [ -n "$now" ] && [ "$now" != "$release" ]; then staged_here=; say "$app/$now was promoted meanwhile"; exit 4; fi
        say "lost sight of the drain; the same call again looks anew"
        exit 1 ;;
esac
if [ -z "$old" ]; then say "done: nothing was left to stop"; exit 0; fi
tidegate stop "$app/$old" >&2 || { say "$app/$old is empty, but was not stopped"; exit 1; }
if [ -n "$retire" ]; then OLD=$old sh -c "$retire" >&2 || { say "the command of --retire failed"; exit 1; }; fi
say "done: everybody is on $app/$release, $app/$old is empty and stopped"
