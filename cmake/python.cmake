# Sets ATTEST_PYTHON, an interpreter that has h5py and numpy. The first python3 on PATH need not be the one that
# the distribution's packages belong to.
if(NOT ATTEST_PYTHON)
  foreach(candidate /usr/bin/python3 python3)
    execute_process(COMMAND ${candidate} -c "import h5py, numpy"
      RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
    if(status EQUAL 0)
      set(ATTEST_PYTHON ${candidate} CACHE STRING "Python 3 with h5py and numpy, for the tests")
      break()
    endif()
  endforeach()
endif()
if(NOT ATTEST_PYTHON)
  message(FATAL_ERROR "The tests write HDF5 files with Python 3, h5py and numpy, and no such Python was found. "
    "Install python3-h5py, or name one with -DATTEST_PYTHON=/path/to/python3, "
    "or leave the tests out with -DATTEST_BUILD_TESTS=OFF.")
endif()
