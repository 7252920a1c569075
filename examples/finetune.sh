#!/usr/bin/env bash
# Fine-tune the packaged weights on clips of your own: bash examples/finetune.sh MY-CLIPS HELD-OUT
# Both hold one folder a clip: CLIP/frames/00000.jpg ... and CLIP/masks/00000.png ... (for all frames or some of them). The clips in
# HELD-OUT are not trained on: they show whether training helps.
set -euo pipefail
clips=$1 held_out=$2

# Every bad file is named before anything is trained.
vosformer data check "$clips"

# How good are the packaged weights as they are?
vosformer benchmark folder "$held_out" --out before/

# Low rates, own masks throughout; the same command again goes on where it was stopped.
vosformer train finetune --data "$clips" --out runs/mine --steps 1000

vosformer benchmark folder "$held_out" --out after/ --weights runs/mine/weights.safetensors --model deaot-s
