# find_package(attest): the targets attest::core, attest::ref, attest::verify and, for x86-64, attest::tiled.
include(CMakeFindDependencyMacro)
enable_language(C)  # FindHDF5 compiles its probe as C.
find_dependency(OpenMP COMPONENTS CXX)
find_dependency(HDF5 COMPONENTS C)
include(${CMAKE_CURRENT_LIST_DIR}/attestTargets.cmake)
