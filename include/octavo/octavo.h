// All of Octavo's C++ API.
#pragma once

#include "octavo/checkpoint.h"
#include "octavo/fused.h"
#include "octavo/gemm.h"
#include "octavo/pack.h"
#include "octavo/parallel.h"
#include "octavo/quantize.h"
#include "octavo/scheme.h"
#include "octavo/status.h"
#include "octavo/tensor.h"
#include "octavo/version.h"
