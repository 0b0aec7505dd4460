"""`python -m bench` is the command `bench`."""

from bench.system.import_path import leave_out_current_folder

leave_out_current_folder()  # before anything is imported that a file of the current folder could stand in for

from bench.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
