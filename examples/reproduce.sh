#!/usr/bin/env bash
# Reproduce a line of a paper: R50-DeAOT-L on DAVIS-2017 val. It needs DAVIS at 480p and the released checkpoint, neither of which comes with
# vosformer: bash examples/reproduce.sh DAVIS R50_DeAOTL_PRE_YTB_DAV.pth
set -euo pipefail
davis=$1 checkpoint=$2

# What is in the file, and which variants does it fit?
vosformer weights inspect "$checkpoint"

# The paper's protocol: masks, the server's zip file, scores.
vosformer benchmark davis2017-val "$davis" --out out/r50-deaot-l --model r50-deaot-l --weights "$checkpoint" --memory paper --dtype fp32

# Scores of any folder of results, also of other programs'.
vosformer evaluate out/r50-deaot-l/masks --truth "$davis/Annotations/480p"
