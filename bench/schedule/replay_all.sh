#!/bin/sh
# Every replay of bench/results/*-scheduler: replay_all.sh BENCH_REPLAY FOLDER. Reports go to FOLDER.
set -e
replay=$1
out=$2
mkdir -p "$out"

# one FILE LABEL options...
one() {
  file=$1
  label=$2
  shift 2
  "$replay" "$@" --label "$label" --json "$out/$file.json" >/dev/null
}

for scale in 0.5 1 1.5 2 2.5 3 4; do
  one "azure-conv-a-$scale" "fcfs" --trace azure-conv --scale $scale
  one "azure-conv-b-$scale" "fcfs, cap off" --trace azure-conv --scale $scale --threshold 0
  one "azure-conv-c-$scale" "fcfs, cap off, budget 8192" --trace azure-conv --scale $scale --threshold 0 --budget 8192
  one "azure-conv-d-$scale" "spf" --trace azure-conv --scale $scale --policy spf
  one "azure-conv-e-$scale" "fcfs, budget 1024" --trace azure-conv --scale $scale --budget 1024
done
for scale in 0.5 1 2 3 4 5; do
  one "azure-code-a-$scale" "fcfs" --trace azure-code --scale $scale
  one "azure-code-b-$scale" "fcfs, cap off" --trace azure-code --scale $scale --threshold 0
  one "azure-code-d-$scale" "spf" --trace azure-code --scale $scale --policy spf
  one "azure-code-e-$scale" "fcfs, budget 1024" --trace azure-code --scale $scale --budget 1024
done
for scale in 0.05 0.1 0.2 0.3 0.4; do
  one "mooncake-a-$scale" "fcfs" --trace mooncake --scale $scale
  one "mooncake-b-$scale" "fcfs, cap off" --trace mooncake --scale $scale --threshold 0
  one "mooncake-c-$scale" "lpm" --trace mooncake --scale $scale --policy lpm
  one "mooncake-d-$scale" "no prefix cache" --trace mooncake --scale $scale --no-prefix-caching 1
  one "mooncake-e-$scale" "fcfs, 839 GB host" --trace mooncake --scale $scale --offload-blocks 400000
done
for rate in 10 20 30 35 40 45; do
  one "sharegpt-a-$rate" "fcfs" --trace sharegpt --requests 10000 --rate $rate
  one "sharegpt-b-$rate" "fcfs, cap off" --trace sharegpt --requests 10000 --rate $rate --threshold 0
  one "sharegpt-d-$rate" "spf" --trace sharegpt --requests 10000 --rate $rate --policy spf
done
for blocks in 6668 13337 26674 53348 106696 213392 426784 853568 1707136; do
  one "cache-a-$blocks" "cache: device alone" --trace mooncake --scale 0.1 --blocks $blocks
done
for blocks in 26674 80022 186718 400110 826894; do
  one "cache-b-$blocks" "cache: device and host" --trace mooncake --scale 0.1 --offload-blocks $blocks
done
for seed in 1 2 3 4 5; do
  one "long-a-$seed" "adaptive" --trace intruder:6000 --seed $seed
  one "long-b-$seed" "cap off" --trace intruder:6000 --seed $seed --threshold 0
done
one fair-both "fair, both backlogged" --trace sharegpt --requests 60000 --rate 1000 --tenants 2 --max-seqs 256
one fair-light "fair, one within its share" --trace sharegpt --requests 20000 --rate 60 --tenants 2 --max-seqs 256
one fair-fcfs "fcfs, one within its share" --trace sharegpt --requests 20000 --rate 60 --tenants 2 --max-seqs 256 --policy fcfs
one share-n8 "n=8, 512/128" --trace uniform:512:128 --requests 1 --n 8
one share-n8-mix "n=8, sharegpt" --trace sharegpt --requests 2000 --n 8 --rate 30 --max-seqs 1024
one share-beam4 "beam 4, 512/128" --trace uniform:512:128 --requests 1 --beam 4
one share-beam4-mix "beam 4, sharegpt" --trace sharegpt --requests 500 --beam 4 --rate 4
one small-pool "1/7 of the pool" --trace sharegpt --requests 10000 --rate 45 --blocks 4000
one full "all at once" --trace sharegpt --requests 10000 --max-seqs 2048 --budget 4096
one million "a million" --trace sharegpt --requests 1000000 --rate 40
