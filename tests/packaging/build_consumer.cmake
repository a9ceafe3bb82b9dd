# cmake -D way=installed|subdirectory ... -P: builds consumer/ from nothing and runs it.
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${work_dir})
set(options -G ${generator} -D CMAKE_CXX_COMPILER=${compiler})
if(way STREQUAL "installed")
  # Moved away from where it was installed to: an installed tree names no absolute path.
  run(${CMAKE_COMMAND} --install ${build_dir} --prefix ${work_dir}/first)
  file(RENAME ${work_dir}/first ${work_dir}/prefix)
  list(APPEND options -D CMAKE_PREFIX_PATH=${work_dir}/prefix)
  run(${work_dir}/prefix/bin/attest --version)
else()
  list(APPEND options -D attest_sources=${source_dir})
endif()
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${work_dir}/build ${options})
run(${CMAKE_COMMAND} --build ${work_dir}/build)
run(${work_dir}/build/consumer)
