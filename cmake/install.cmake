# Installs the program, the libraries and the headers, for find_package(attest).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attest)
install(TARGETS attest)
install(TARGETS attest_core attest_ref attest_verify EXPORT attestTargets)
if(TARGET attest_tiled)
  install(TARGETS attest_tiled EXPORT attestTargets)
  # The others are compiled once for each instruction set level.
  install(DIRECTORY tiled DESTINATION include/attest FILES_MATCHING
    REGEX "/(attention|dispatch|emulated|merge|precise_attention|(precise_)?problem|rms_norm|rope|row_kernels|traced)\\.hpp$")
endif()
install(EXPORT attestTargets NAMESPACE attest:: DESTINATION ${package_dir})
# The headers that name HDF5's types are for our sources only.
install(DIRECTORY core ref verify DESTINATION include/attest
  FILES_MATCHING PATTERN "*.hpp" REGEX "/dump/(hdf5_handle|dataset|types)\\.hpp$" EXCLUDE PATTERN program EXCLUDE)

write_basic_package_version_file(attestConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/attestConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/attestConfigVersion.cmake
  DESTINATION ${package_dir})
