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
  1  nothing was promoted: tidegate does not answer or refuses, or the smoke test failed; what this call staged is removed again.
     Or a step after the drain failed: the message says so
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

# What tidegate knows: document | jq filter, with $app and $release at hand.
ask() { tidegate status "$app" --json | jq -r --arg app "$app" --arg release "$release" ".apps[\$app] as \$it | $1"; }
# Its own words on standard error say what is wrong.
tidegate status "$app" >/dev/null || exit 1
current=$(ask '$it.current')
state=$(ask '$it.releases[$release].state // "unknown"')
staged_here=''

give_up() {
    say "$1"
    if [ -n "$staged_here" ]; then tidegate remove "$app/$release" >&2 || say "$app/$release stays staged: nobody is sent there"; fi
    exit 1
}

passes() {
    if [ -n "$smoke" ]; then
        BACKEND=$1 ADDRESS=$2 sh -c "$smoke" >&2
    else
        curl -fsS -o /dev/null --max-time 10 "http://$2$prefix$smoke_path"
    fi
}

# Straight to each process: a staged release is hidden from clients, and each process is to be tried, not whichever a balancer picks.
smoke_test() {
    until=$(($(date +%s) + smoke_timeout))
    while ! passes "$1" "$2"; do
        [ "$(date +%s)" -lt $until ] || return 1
        sleep 1
    done
}

if [ "$current" = by_health ]; then give_up "$app has 'current: by_health': its health endpoints deploy, not this script"; fi
if [ "$current" = "$release" ]; then
    # A call before this one promoted it. Whose drain began last is what that deploy left behind.
    old=$(ask '[.drains[].target | split("/") | select(.[0] == $app and length == 2) | .[1]] | map(select(. != $release)) | last // ""')
    say "$app/$release is current already"
else
    old=$current
    if [ "$state" = unknown ]; then
        [ -n "$backends" ] || misused "$app/$release is not known, and no --backend says where it is"
        set -- "$app" "$release"
        for backend in $backends; do set -- "$@" --backend "$backend"; done
        if [ -n "$prefix" ]; then set -- "$@" --path "$prefix"; fi
        tidegate stage "$@" >&2 || give_up "$app/$release was not staged"
        staged_here=yes
    fi
    addresses=$(ask '$it.releases[$release].backends | to_entries[] | "\(.key)=\(.value.address)"') || give_up "tidegate does not answer any more"
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
        now=$(ask '$it.current')
        if [ "$now" = "$current" ]; then give_up "$app/$release was not promoted"; fi
        if [ -n "$now" ] && [ "$now" != "$release" ]; then staged_here=; say "$app/$now was promoted meanwhile"; exit 4; fi
        say "lost sight of the drain; the same call again looks anew"
        exit 1 ;;
esac
if [ -z "$old" ]; then say "done: nothing was left to stop"; exit 0; fi
tidegate stop "$app/$old" >&2 || { say "$app/$old is empty, but was not stopped"; exit 1; }
if [ -n "$retire" ]; then OLD=$old sh -c "$retire" >&2 || { say "the command of --retire failed"; exit 1; }; fi
say "done: everybody is on $app/$release, $app/$old is empty and stopped"
