#!/bin/sh
# make demo: three strategies, three seeds, on the digits that scikit-learn ships; then the report.
# A run that is there already is not repeated; one that was cut off goes on.
#
#   sh benchmarks/demo.sh BIN [STRATEGY-SEED]     all runs and the report, or that run alone
set -e
# These networks are too small to share: a second thread costs more than it does.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
vaal="$1/vaal-ext"
out=demo
if [ -n "$2" ]; then
    # The lines go to sed, which says whose they are, and the run's exit status past it.
    exec 4>&1
    status=$({ {
        "$vaal" run --dataset digits --strategy "${2%-*}" --seed "${2#*-}" --rounds 8 \
            --device cpu --out "$out/runs/$2" 2>&1 && echo 0 >&3 || echo 255 >&3  # xargs begins no more
    } | sed "s/^/$2: /" >&4; } 3>&1)
    exit "$status"
fi
runs=""
for strategy in vaal entropy random; do
    for seed in 0 1 2; do runs="$runs $strategy-$seed"; done
done
echo
echo "Nine runs on digits, two at a time (STRATEGY-SEED)"
printf '%s\n' $runs | xargs -P 2 -n 1 sh "$0" "$1"
echo
# shellcheck disable=SC2046  # the names hold no spaces
"$vaal" report $(printf "$out/runs/%s " $runs) --out "$out"
echo
echo "The report, to be opened in a browser: $PWD/$out/report.html"
echo "Its pictures are in $PWD/$out:"
(cd "$out" && ls ./*.png)
echo "Next: $vaal run --help; or MNIST, with its files in ROOT/MNIST/raw:"
echo "  $vaal run --dataset mnist --data-root ROOT --strategy vaal --rounds 3 --out runs/vaal-0"
