"""The command line of programs that train: `neon.util.argparser`, where the documented framework has it."""
