#!/bin/sh
# make gpu: everything that only a machine with a GPU can show. Builds in place for the torch that
# is there (no environment is made, nothing is fetched), then tests, compute-sanitizer, timings.
#
#   sh benchmarks/gpu.sh [STEP...]        all steps, or those named, in the order given; `tests` and
#                                         `ops` name several. `needs` takes seconds: what is missing?
#
# PYTHON          python3
# RESULTS         build/gpu: six files at most. summary.txt, a line a step; log.txt, what each said;
#                 tables.tar, the CSV; built.tar.gz, the libraries. Of a step that has not ended:
#                 running.log and running.csv. Steps that are named add to what is there.
# WITHIN          1500: seconds for all of it. The step that runs then is stopped, the rest left out
# BUILT           a built.tar.gz of before, which `build` unpacks instead of compiling
# VAAL_PREBUILT   a folder with _ops_cpu.so and _ops_cuda.so built elsewhere, for the step `prebuilt`
# VAAL_COMMIT     what the CSV says of the commit where there is no git
# REHEARSE=1      no GPU: the steps run on the CPU as far as they can, and say what they leave out
# VAAL_CUDA_ARCH  what to build for: native, which is what the device is
#
# Every step has a time limit and runs even if one before it failed. A summary is printed last.
python=${PYTHON:-python3}
out=${RESULTS:-build/gpu}
end=$(($(date +%s) + ${WITHIN:-1500}))
# What matters most comes first: the time may end.
tests="tests_graphs tests_kernels tests_ops"
ops="symmetric_kl forward_kl fisher_product fisher_direction perturb random_perturb deepfool_step \
posterior_summary"
all="needs build $tests memcheck $ops ldr deepfool pool accuracy racecheck initcheck synccheck \
prebuilt"
steps=""
for each in ${*:-$all}; do
    case " $all tests ops " in
        *" $each "*) ;;
        *) echo "gpu.sh: there is no step $each, only $all" >&2 && exit 2 ;;
    esac
    case $each in
        tests) each=$tests ;;
        ops) each=$ops ;;
    esac
    steps="$steps $each"
done
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
mkdir -p "$out" || exit 2
running="$out/running.log" csv="$out/running.csv"
rm -f "$running" "$csv"
[ $# -gt 0 ] || rm -f "$out/summary.txt" "$out/log.txt" "$out/tables.tar" "$out/built.tar.gz"
summary="" failed=0

note() { # result, step, seconds: the last line of the log says the rest
    line="$1  $2  ${3} s  $(tail -n 1 "$running" | cut -c 1-150)"
    echo "$line" | tee -a "$out/summary.txt"
    summary="$summary
$line"
    { echo "==== $2: $1, $3 s" && tail -c 500000 "$running"; } >>"$out/log.txt"
    rm -f "$running"
    if [ -f "$csv" ]; then
        mv "$csv" "$out/$2.csv"
        tar -rf "$out/tables.tar" -C "$out" "$2.csv"
        rm "$out/$2.csv"
    fi
}

step() { # name, limit in seconds, command...
    name=$1 limit=$2
    shift 2
    from=$(date +%s)
    if [ $((end - from)) -lt "$limit" ]; then limit=$((end - from)); fi
    if [ "$limit" -lt 5 ]; then
        skip "$name" "no time is left of WITHIN"
        failed=1
        return
    fi
    # Interrupted, pytest and Python say what they have found and where they were.
    timeout -s INT -k 15 "$limit" "$@" >"$running" 2>&1
    case $? in
        0) result=ok ;;
        124 | 137) result="TOO LONG" failed=1 ;;
        *) result=FAILED failed=1 ;;
    esac
    note "$result" "$name" $(($(date +%s) - from))
}

skip() { # name, reason
    result=skipped
    echo "$2" >"$running"
    note "$result" "$1" 0
}

device=cuda
if [ -n "$REHEARSE" ]; then
    device=cpu
    export VAAL_TEST_DEVICE=cpu
else
    export VAAL_CUDA_ARCH="${VAAL_CUDA_ARCH:-native}"
fi

seen=""
need_device() { # once, before the first step that runs on it
    [ -z "$REHEARSE$seen" ] || return
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu.sh: this torch sees no CUDA device (REHEARSE=1 runs what needs none)" >&2
        exit 2
    fi
    seen=yes
}

run_tests() { # name, limit, files...
    name=$1 limit=$2
    shift 2
    # Each test is named as it ends, and one that hangs for a minute says where it is.
    step "$name" "$limit" "$python" -m pytest -v -m gpu -p no:cacheprovider --durations=5 \
        --continue-on-collection-errors -o faulthandler_timeout=60 "$@"
}

sanitize() { # tool, limit
    # Of the driver's own calls that fail some are only questions (what libraries ask at import).
    ours=""
    [ "$1" != memcheck ] || ours="--report-api-errors no"
    if [ -n "$REHEARSE" ] && [ "$1" != memcheck ]; then
        skip "$1" "a rehearsal: compute-sanitizer needs the device"
    elif [ -n "$REHEARSE" ]; then
        # What it would watch runs, once.
        step "$1" "$2" "$python" benchmarks/sanitize.py --device cpu
    else
        # An allocation for every tensor: what runs past one would else land in its neighbour.
        # shellcheck disable=SC2086
        step "$1" "$2" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
            compute-sanitizer --tool "$1" $ours --error-exitcode 1 "$python" benchmarks/sanitize.py
    fi
}

bench() { # name, limit, script, options on the device, options of a rehearsal
    name=$1 limit=$2 script=$3 options=$4
    [ -z "$REHEARSE" ] || options="$5 --threads 1"
    # shellcheck disable=SC2086
    step "$name" "$limit" "$python" "benchmarks/bench_$script.py" --device $device --csv "$csv" \
        $options
}

for each in $steps; do
    [ "$each" = needs ] || need_device
    case $each in
        needs) step needs 60 "$python" benchmarks/gpu_needs.py --device $device ;;
        build)
            if [ -n "$BUILT" ]; then
                step build 60 tar -xzvf "$BUILT"
            else
                step build 400 env VAAL_CUDA=1 "$python" setup.py build_ext --inplace
                [ "$result" != ok ] || tar -czf "$out/built.tar.gz" vaal_ext/*.so \
                    vaal_ext/_ops_cuda.resources.txt
            fi
            step info 60 "$python" -m vaal_ext info
            ;;
        # Only the files with tests for a device: the others may need packages that are not here.
        # Those of the ops have their mark from a fixture of all of them.
        tests_graphs)
            # shellcheck disable=SC2046
            run_tests "$each" 240 $(grep -l 'pytest.mark.gpu' python_tests/*/test_*.py |
                grep -v test_cuda_device.py)
            ;;
        tests_kernels) run_tests "$each" 240 python_tests/cuda/test_cuda_device.py ;;
        tests_ops) run_tests "$each" 300 python_tests/ops ;;
        memcheck | racecheck | initcheck | synccheck) sanitize "$each" 200 ;;
        ldr) bench "$each" 180 ldr "--seconds 10" "--seconds 1 --batch-size 32" ;;
        deepfool) bench "$each" 120 deepfool "--seconds 10" "--seconds 5" ;;
        pool) bench "$each" 120 pool "--samples 200000" "--samples 2000 --jpegs 100 --passes 1" ;;
        accuracy) step "$each" 120 "$python" benchmarks/bench_accuracy.py --device $device --csv "$csv" ;;
        prebuilt)
            if [ -n "$VAAL_PREBUILT" ]; then
                step prebuilt 120 "$python" benchmarks/smoke.py "$VAAL_PREBUILT" --device $device
            else
                skip prebuilt "VAAL_PREBUILT is not set"
            fi
            ;;
        *) bench "$each" 150 ops "--ops $each --seconds 0.3" \
            "--ops $each --seconds 0.02 --dtypes float32" ;;
    esac
done
echo "
$summary"
exit $failed
