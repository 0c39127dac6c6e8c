#pragma once  // everything this header declares comes from device.hpp
