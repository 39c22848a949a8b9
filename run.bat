@echo off
rem Untested: sets up .venv on first use, then starts the server.
setlocal
cd /d "%~dp0"
if not exist .venv\Scripts\python.exe (
  py -3 -m venv .venv || exit /b 1
  .venv\Scripts\python -m pip install -c constraints.txt -r requirements.txt || exit /b 1
)
.venv\Scripts\python main.py %*
