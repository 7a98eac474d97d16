// The parts of the extension: each adds its functions to the module.
#pragma once

#include <pybind11/pybind11.h>

