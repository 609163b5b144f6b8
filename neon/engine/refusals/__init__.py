"""What neon refuses, by name, before anything is written. (Of a value alone `neon.arguments` refuses it.)"""
