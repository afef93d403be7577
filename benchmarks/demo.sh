#!/bin/sh
# make demo: three strategies, three seeds, on the digits that scikit-learn ships; then the report.
# A run that is there already is not repeated; one that was cut off goes on.
set -e
# These networks are too small to share: a second thread costs more than it does.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
vaal="$1/vaal-ext"
out=demo
runs=""
for strategy in vaal entropy random; do
    for seed in 0 1 2; do
        echo
        echo "== digits, $strategy, seed $seed"
        "$vaal" run --dataset digits --strategy "$strategy" --seed "$seed" --rounds 8 \
            --device cpu --out "$out/runs/$strategy-$seed"
        runs="$runs $out/runs/$strategy-$seed"
    done
done
echo
# shellcheck disable=SC2086  # the names hold no spaces
"$vaal" report $runs --out "$out"
echo
echo "The report, to be opened in a browser: $PWD/$out/report.html"
echo "Its pictures are in $PWD/$out:"
(cd "$out" && ls ./*.png)
echo "Next: $vaal run --help; or MNIST, with its files in ROOT/MNIST/raw:"
echo "  $vaal run --dataset mnist --data-root ROOT --strategy vaal --rounds 3 --out runs/vaal-0"
