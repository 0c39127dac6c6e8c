"""`python -m gpuconv` is the command `gpuconv`."""

try:
    from .cli import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
