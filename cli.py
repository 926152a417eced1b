from gransam_sdk.cli import main

main()
