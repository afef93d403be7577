#!/bin/sh
# make gpu: everything that only a machine with a GPU can show. Builds in place for the torch that
# is there (no environment is made, nothing is fetched), then tests, compute-sanitizer, timings.
#
#   sh benchmarks/gpu.sh [STEP...]        all steps, or those named, in the order given
#
# PYTHON          python3
# RESULTS         build/gpu: logs and CSV
# VAAL_PREBUILT   a folder with _ops_cpu.so and _ops_cuda.so built elsewhere, for the step `prebuilt`
# REHEARSE=1      no GPU: the steps run on the CPU as far as they can, and say what they leave out
# VAAL_CUDA_ARCH  what to build for: native, which is what the device is
#
# Every step has a time limit and runs even if one before it failed. A summary is printed last.
python=${PYTHON:-python3}
out=${RESULTS:-build/gpu}
all="build device tests memcheck ops ldr deepfool prebuilt racecheck initcheck synccheck accuracy pool"
steps=${*:-$all}
for each in $steps; do
    case " $all " in
        *" $each "*) ;;
        *) echo "gpu.sh: there is no step $each, only $all" >&2 && exit 2 ;;
    esac
done
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
mkdir -p "$out" || exit 2
summary="" failed=0

note() { # result, step, seconds
    line="$1  $2  ${3} s  $(tail -n 1 "$out/$2.log" | cut -c 1-150)"
    echo "$line"
    summary="$summary
$line"
}

step() { # name, limit in seconds, command...
    name=$1 limit=$2
    shift 2
    from=$(date +%s)
    timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1
    case $? in
        0) result=ok ;;
        124 | 137) result="TOO LONG" failed=1 ;;
        *) result=FAILED failed=1 ;;
    esac
    note "$result" "$name" $(($(date +%s) - from))
}

skip() { # name, reason
    echo "$2" >"$out/$1.log"
    note skipped "$1" 0
}

if [ -n "$REHEARSE" ]; then
    device=cpu
    export VAAL_TEST_DEVICE=cpu
else
    device=cuda
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu.sh: this torch sees no CUDA device (REHEARSE=1 runs what needs none)" >&2
        exit 2
    fi
    export VAAL_CUDA_ARCH="${VAAL_CUDA_ARCH:-native}"
fi

sanitize() { # tool, limit
    # Of the driver's own calls that fail some are only questions (what libraries ask at import).
    ours=""
    [ "$1" != memcheck ] || ours="--report-api-errors no"
    if [ -n "$REHEARSE" ]; then
        # What it would watch runs, once.
        [ "$1" != memcheck ] || step sanitize "$2" "$python" benchmarks/sanitize.py --device cpu
        skip "$1" "a rehearsal: compute-sanitizer needs the device"
    else
        # An allocation for every tensor: what runs past one would else land in its neighbour.
        # shellcheck disable=SC2086
        step "$1" "$2" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
            compute-sanitizer --tool "$1" $ours --error-exitcode 1 "$python" benchmarks/sanitize.py
    fi
}

bench() { # name, limit, options on the device, options of a rehearsal
    name=$1 limit=$2 options=$3
    shift 3
    # shellcheck disable=SC2086
    [ -n "$REHEARSE" ] || set -- $options
    step "$name" "$limit" "$python" "benchmarks/bench_$name.py" --device $device \
        --csv "$out/$name.csv" "$@"
}

for each in $steps; do
    case $each in
        build)
            step build 560 env VAAL_CUDA=1 "$python" setup.py build_ext --inplace
            step info 60 "$python" -m vaal_ext info
            ;;
        device)
            if [ -n "$REHEARSE" ]; then
                skip device "a rehearsal: nvidia-smi is not asked"
            else
                step device 30 nvidia-smi
            fi
            ;;
        tests)
            # Only the files with tests for a device: the others may need packages that are not here.
            # Those of the ops have their mark from a fixture of all of them.
            files="$(grep -l 'pytest.mark.gpu' python_tests/*/test_*.py) python_tests/ops"
            # shellcheck disable=SC2086
            step tests 420 "$python" -m pytest -m gpu $files
            ;;
        memcheck | racecheck | initcheck | synccheck) sanitize "$each" 300 ;;
        prebuilt)
            if [ -n "$VAAL_PREBUILT" ]; then
                step prebuilt 120 "$python" benchmarks/smoke.py "$VAAL_PREBUILT" --device $device
            else
                skip prebuilt "VAAL_PREBUILT is not set"
            fi
            ;;
        ops) bench ops 560 "--seconds 0.3" --seconds 0.02 --threads 1 ;;
        deepfool) bench deepfool 300 "" --seconds 5 --threads 1 ;;
        ldr) bench ldr 300 "" --seconds 1 --threads 1 --batch-size 32 ;;
        accuracy) bench accuracy 300 "" ;;
        pool) bench pool 300 "" --samples 2000 --jpegs 100 --passes 1 --threads 1 ;;
    esac
done
echo "
$summary"
exit $failed
