
# From here on, this script is the same for every job.
set -euo pipefail

# Variables of another Redis are not for this job.
unset "${!REDIS_@}"

if ! command -v hf-downloader > /dev/null; then
    echo "hf-downloader is not on PATH on $(hostname): give its environment with --env" >&2
    exit 2
fi

# In an array job (sbatch --array=0-9 FILE), each element takes one of the repos.
job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    # Its other number may be that of the whole array, too.
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    count=${#repos[@]}
    repos=("${repos[@]:SLURM_ARRAY_TASK_ID:1}")
    state+=-$SLURM_ARRAY_TASK_ID
    if [[ ${#repos[@]} == 0 ]]; then
        echo "there is no repo number $SLURM_ARRAY_TASK_ID: submit it with --array=0-$((count - 1))" >&2
        exit 2
    fi
fi

# Ends the workers with a signal. It goes to them, not to srun, which would have them killed. That is left
# for those who do not hear it, because they are only being started.
workers='' master='' redis=''
end_workers() {
    local -i looks=0
    scancel --quiet --signal="$1" "$job" || true
    while kill -0 "$workers"; do
        sleep 0.2
        ((++looks % 30)) || kill "$workers" || true
    done
    workers=''
} 2> /dev/null

# Ends what was started, in order: workers give back what they are at, Redis saves what is left to do.
finish() {
    trap '' USR1 TERM
    [[ -z $workers ]] || end_workers TERM
    for pid in $master $redis; do
        kill "$pid" || true
        wait "$pid" || true
    done 2> /dev/null
    master='' redis=''
}
trap finish EXIT
trap 'exit 143' TERM # of scancel

# Slurm sends USR1 shortly before the time limit.
again() {
    finish
    if scontrol requeue "$job"; then
        echo "the time limit is near: queued again, and then it goes on where it was"
    else
        echo "the time limit is near: submit the same script again, and it goes on where it was"
    fi
    exit 130
}
trap again USR1

# A Redis for this job alone, on this node, with a password that is in its folder and nowhere else.
# Where nodes have several networks, choose one: --address "$(hostname)-ib0"
coproc server { exec "${hf[@]}" redis "$state"; }
redis=$!
read -r url_file <&"${server[0]}" || { wait "$redis"; exit; }
REDIS_URL=$(< "$url_file")
export REDIS_URL

# Workers on all nodes. One that is lost, with its node or alone, does not end the others.
OUTPUT_DIR=$output LOG_LEVEL=${LOG_LEVEL:-WARNING} srun --label --export=ALL \
    --no-kill --kill-on-bad-exit=0 --wait=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    "${hf[@]}" worker < /dev/null &
workers=$!

# Queues the repos, or finds them queued already; writes a line a minute until all is there.
"${hf[@]}" batch-master - --from-file "${options[@]}" --wait --interval 60 \
    <<< "$(printf '%s\n' "${repos[@]}")" &
master=$!

# Whatever ends first ends the job. If all is well, that is who waits for the last file.
code=0
wait -n || code=$?
if kill -0 "$master" 2> /dev/null; then
    echo "the workers or Redis have ended too early; submit the same script again, and it goes on" >&2
    exit 1
fi
if [[ $code == 0 ]]; then
    end_workers USR1 # who has nothing to do, leaves
fi
exit "$code"
