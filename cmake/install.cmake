# cmake --install: the library, its headers and the package for find_package(octavo); the program. With scikit-build-core,
# only what a wheel holds.
if(SKBUILD)
  return()
endif()
include(CMakePackageConfigHelpers)
install(TARGETS octavo EXPORT octavo ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/octavo ${PROJECT_BINARY_DIR}/src/generated/octavo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
install(EXPORT octavo NAMESPACE octavo:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/octavo FILE octavo-targets.cmake)
configure_package_config_file(cmake/octavo-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/octavo-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/octavo)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/octavo-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/octavo-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/octavo-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/octavo)
