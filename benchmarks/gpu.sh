#!/bin/sh
# make gpu: everything that only a machine with a GPU can show. Builds in place for the torch that
# is there (no environment is made, nothing is fetched), then tests, compute-sanitizer, timings.
# Every step runs even if one before it failed; logs and CSV go to $OUT, a summary is printed last.
python=${PYTHON:-python3}
out=${OUT:-build/gpu}
mkdir -p "$out"
summary=""

step() { # name, command...
    name=$1
    shift
    if "$@" >"$out/$name.log" 2>&1; then result=ok; else result=FAILED; fi
    summary="$summary
  $result  $name: $(tail -n 1 "$out/$name.log")"
    echo "$result $name"
}

export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
step build env VAAL_CUDA=1 "$python" setup.py build_ext --inplace
step info "$python" -m vaal_ext info
step device nvidia-smi
step tests "$python" -m pytest -m gpu python_tests
for tool in memcheck racecheck initcheck synccheck; do
    step "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$python" benchmarks/sanitize.py
done
step accuracy "$python" benchmarks/bench_accuracy.py --device cuda --csv "$out/accuracy.csv"
step ops "$python" benchmarks/bench_ops.py --device cuda --csv "$out/ops.csv"
step ldr "$python" benchmarks/bench_ldr.py --device cuda --csv "$out/ldr.csv"
echo "$summary"
case $summary in *FAILED*) exit 1 ;; esac
